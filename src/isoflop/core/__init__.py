"""What all packages stand on: artifacts, recipes, the ledger, errors, the console, the machine."""
