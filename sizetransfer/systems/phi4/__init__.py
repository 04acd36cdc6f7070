"""The scalar field theory: its teacher."""
