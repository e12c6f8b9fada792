"""The built-in tasks, one kind a module; `registry` lists them."""
