"""The light agent of edgelathe: speaks frames on stdin and stdout, keeps files, runs and times models."""
