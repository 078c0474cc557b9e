"""Updates: learning-rate schedules, parameter roles, update rules and parametrizations."""
