"""What is written for another machine, proved equal to the trained network."""
