"""Language models of others, behind one client: teachers and judges ask them, pay once, and never more than allowed."""
