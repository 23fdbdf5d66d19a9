"""Drawing and formatting of texts, similarities and results; no models here."""
