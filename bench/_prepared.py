"""Imported before torch: both sides of a comparison run in a process that is prepared as the robode command's is."""

from robode.process import prepare

prepare()
