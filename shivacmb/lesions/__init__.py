"""Clusters of voxels to lesions, and lesions to tables."""
