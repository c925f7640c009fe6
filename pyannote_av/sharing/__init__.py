"""What is made here, given to others: pipeline folders, model cards, the Hugging Face hub."""
