"""VoiceForge: self-hosted speech-to-text."""
