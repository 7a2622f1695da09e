"""Speech services: recognizers and synthesizers behind two protocols, and the embedded ones."""
