"""What makes several servers one: channels that keep what was sent, and a store that nodes share."""
