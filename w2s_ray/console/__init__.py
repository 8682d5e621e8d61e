"""What a researcher sees on the terminal while planning and waiting. Draws; decides nothing."""
