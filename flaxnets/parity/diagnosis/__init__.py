"""Where two models part first, and why: runs are traced, layers tried alone, causes looked up."""
