"""The demo: a whole grid inside this computer for a minute, one picture, and an honest comparison."""
