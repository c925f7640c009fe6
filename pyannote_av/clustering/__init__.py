"""Systems that cut speech into windows and cluster them, with their networks and tasks."""
