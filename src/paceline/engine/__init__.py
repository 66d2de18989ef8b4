"""Turns the scheduler's decisions into running batches: loading, warm-up, instances, telemetry."""
