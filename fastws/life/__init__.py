"""What happens to one connection, in its order: admission, then its life; and how handlers are called (steps)."""
