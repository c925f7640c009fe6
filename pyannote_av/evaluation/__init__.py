"""How well it works, measured as the papers do."""
