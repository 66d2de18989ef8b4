"""What was configured, and where did each value come from?"""

from paceline.config.machine import Cores, usable_cores
from paceline.config.resolve import resolve
from paceline.config.settings import SETTINGS, ServeSettings

__all__ = ["SETTINGS", "Cores", "ServeSettings", "resolve", "usable_cores"]
