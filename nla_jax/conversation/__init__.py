"""Conversations: messages of any known shape, their tokens with roles, and positions in them."""
