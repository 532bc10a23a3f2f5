"""The pages for people who come from something else: all that they say is so."""
