"""The name of the card in a teacher's folder, for those who read it without torch too."""

from typing import Final

CARD_FILE: Final = "card.json"
