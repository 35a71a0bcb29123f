"""Kavach."""
