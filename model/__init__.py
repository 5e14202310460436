"""Everything torch: networks, F_theta, policies, bundles, and what happens on a device."""
