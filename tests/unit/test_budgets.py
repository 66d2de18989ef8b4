"""How long may what a study starts take?"""

from paceline.optimize.wanted import Budget


def test_what_is_needed_to_begin_with_gets_a_minute_and_the_rest_what_is_left():
    budget = Budget(5.0)
    assert budget.timeout_s == 60.0
    budget.is_opening = False
    assert 1.0 <= budget.timeout_s <= 5.0
    assert 60.0 < Budget(600.0).timeout_s <= 600.0
