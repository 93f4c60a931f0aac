"""Arrays and affines: reorient, resample, mask, crop, scale, and the way back."""
