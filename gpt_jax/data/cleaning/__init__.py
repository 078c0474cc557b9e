"""Cleaning of text before it becomes tokens: rules, languages, copies, personal data."""
