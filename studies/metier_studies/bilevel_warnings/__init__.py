"""Study `bilevel-warnings`: do the warnings come where intervals cover too little?"""
