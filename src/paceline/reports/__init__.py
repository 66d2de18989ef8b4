"""Reports: pages and pictures that stand alone, readable without a network, dark and light."""
