"""Export: clips, reels, contact sheets, timelines, chapters and a page, of spans of videos."""
