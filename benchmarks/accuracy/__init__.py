"""How accurate attfm is beside boosted trees and other models, on the same rows of thirteen tables."""
