"""The pure core: planning a join to the frame, splicing, and transition models. Never imports prefect."""
