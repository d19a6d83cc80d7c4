"""What a person can set, as frozen dataclasses; neither torch nor timm is imported here."""
