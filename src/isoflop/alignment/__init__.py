"""Instruction tuning and alignment: supervised, reward, preference and policy-gradient training."""
