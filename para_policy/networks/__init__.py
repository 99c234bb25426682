"""Networks of diffusion policies, their sizes, and how each splits its work for inference."""
