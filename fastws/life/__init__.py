"""What happens to one connection, in order: admission, then its life. `steps` is how handlers are called."""
