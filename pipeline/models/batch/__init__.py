"""Providers' batch APIs: half the price, responses within a day."""
