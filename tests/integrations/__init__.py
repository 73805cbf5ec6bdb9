"""The loss in the frameworks that people use: the page's recipes, and what they must hold."""
