"""Noise suppression: engines that clean the audio of many streams at once."""
