"""Readers of video data sets, for `video_retrieval` and the moment tasks."""
