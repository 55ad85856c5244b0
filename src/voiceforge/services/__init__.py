"""What the product does, one module per noun. Surfaces call these and nothing below them."""
