"""What users bring is hostile until it is checked: files, structures, names in messages."""
