"""Study `exponents`: do certified exponents predict what is measured?"""
