"""Where cores meet the world: the loop that drives a core, and the injected protocols with their real versions."""
