"""The paper's simulations as functions and commands."""
