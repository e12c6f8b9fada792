"""From sources of text to shards of tokens: cleaned, without duplicates, mixed; no training."""
