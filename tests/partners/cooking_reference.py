"""The rules of the cooking game once more, in plain Python objects: slow and obvious."""

from __future__ import annotations

from dataclasses import dataclass, field

MOVES = {1: (-1, 0), 2: (1, 0), 3: (0, 1), 4: (0, -1)}


@dataclass
class Thing:
    name: str
    place: tuple[int, int] | None
    chopped: bool = False
    inside: list[Thing] = field(default_factory=list)


@dataclass
class Cook:
    place: tuple[int, int]
    facing: tuple[int, int] = (-1, 0)
    holding: Thing | None = None
    seen: set[tuple[str, ...]] = field(default_factory=set)


class ReferenceKitchen:
    """One episode of full_divider_salad_4 (or of the small kitchen)."""

    def __init__(self, *, size, divider, board, delivery, recipes, cooks, things, horizon=200, step_cost=0.1):
        self.size, self.divider, self.board, self.delivery = size, divider, board, delivery
        self.recipes, self.horizon, self.step_cost = recipes, horizon, step_cost
        self.cooks = [Cook(place) for place in cooks]
        self.things = [Thing(name, place) for name, place in things.items()]
        self.plate = next(thing for thing in self.things if thing.name == "plate")
        self.achieved: set[tuple] = set()
        self.time = 0

    def is_floor(self, place):
        x, y = place
        return 0 < x < self.size - 1 and 0 < y < self.size - 1 and x != self.divider

    def thing_at(self, place):
        # A thing in the plate or in a hand has no place of its own.
        return next((thing for thing in self.things if thing.place == place), None)

    def step(self, actions):
        for cook, other, action in zip(self.cooks, self.cooks[::-1], actions, strict=True):
            self.act(cook, other, action)
        reward = 0.0
        for cook in self.cooks:
            if cook.holding is not None and self.kind(cook.holding) not in cook.seen:
                cook.seen.add(self.kind(cook.holding))
                reward += 0.5
        progress, served = self.progress()
        self.time += 1
        done = served is not None
        return reward + progress - self.step_cost, done, self.time >= self.horizon and not done, served

    def kind(self, thing):
        if thing is self.plate:
            return ("plate", *sorted(food.name for food in thing.inside))
        return (thing.name, "chopped" if thing.chopped else "raw")

    def act(self, cook, other, action):
        if action in MOVES:
            cook.facing = MOVES[action]
            ahead = (cook.place[0] + cook.facing[0], cook.place[1] + cook.facing[1])
            if self.is_floor(ahead) and ahead != other.place:
                cook.place = ahead
        elif action == 5:
            ahead = (cook.place[0] + cook.facing[0], cook.place[1] + cook.facing[1])
            if not self.is_floor(ahead):
                self.interact(cook, ahead)

    def interact(self, cook, ahead):
        there = self.thing_at(ahead)
        if cook.holding is None:
            if there is None:
                return
            if ahead == self.board and there is not self.plate and not there.chopped:
                there.chopped = True
            else:
                cook.holding, there.place = there, None
        elif there is None:
            if ahead != self.board or cook.holding is not self.plate:
                cook.holding.place, cook.holding = ahead, None
        elif there is self.plate and self.fits(cook.holding):
            self.plate.inside.append(cook.holding)
            cook.holding = None
        elif cook.holding is self.plate and self.fits(there):
            there.place = None
            self.plate.inside.append(there)

    def fits(self, food):
        if food is self.plate or not food.chopped:
            return False
        together = {food.name, *(inside.name for inside in self.plate.inside)}
        return len(together) == 1 or any(together == set(recipe) for recipe in self.recipes)

    def progress(self):
        inside = {food.name for food in self.plate.inside}
        served = [r for r in self.recipes if set(r) <= inside and self.plate.place == self.delivery]
        gains = []
        before = set(self.achieved)
        for recipe in self.recipes:
            nodes = {("chopped", t.name) for t in self.things if t.chopped and t.name in recipe}
            if set(recipe) <= inside:
                nodes.add(("plated", *recipe))
            self.achieved |= nodes
            gains.append(10.0 if recipe in served else len(nodes - before))
        return max(gains), (max(served, key=len) if served else None)
