"""Progress of jobs: computed from what their processes tell, numbered, and streamed."""
