"""One job, from plan to published result."""
