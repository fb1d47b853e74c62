"""Statistics: intervals for reported figures."""
